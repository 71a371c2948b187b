"""Sound files prepared once: decoded, resampled, stored."""
