"""Extraction: the job (planned by `plan`, run by `job`) and the library call for one's own Ray Dataset (`dataset`)."""
