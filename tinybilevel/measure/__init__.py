"""The constants of Section 3, measured by products along a trajectory."""
