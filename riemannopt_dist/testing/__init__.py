"""Small worlds, problems with known answers and faulty parts: for tests, benchmarks and plug-ins."""
