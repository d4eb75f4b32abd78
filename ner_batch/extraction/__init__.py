"""Extraction: the job and the library call over one's own Ray Dataset; planned by `plan`, run by `job`."""
