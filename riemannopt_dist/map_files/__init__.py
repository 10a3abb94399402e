"""Attribution maps in the files of other tools: a format a file, with what writes it and what reads it."""
