"""A trained simultaneous model as it runs on a device: exported, and compared with the run that trained it."""
