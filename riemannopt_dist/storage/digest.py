"""What tells plain values from others."""

import hashlib
import json
from typing import Any


def digest_of_values(values: Any) -> str:
    """SHA-256, in hexadecimal, of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
