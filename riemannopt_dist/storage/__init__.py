"""Files in a local folder or an object store, whole and with their digest."""
