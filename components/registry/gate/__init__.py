"""The gate's decision on a candidate, and its comparison with the champion."""
