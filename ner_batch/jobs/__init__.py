"""What every job shares: the Ray session, progress, versions, digests, tables, plots."""
