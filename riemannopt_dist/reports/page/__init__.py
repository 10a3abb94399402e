"""One self-contained HTML page of tables, figures and pictures."""
