"""What a person sees (``ui``) and what keeps their runs alive (``jobs``). No mathematics, no torch."""
