"""The statuses with which a live view is told what to do."""

NOTHING_NEW = 204
# As htmx has it: swap this answer in, and poll no more.
STOP_POLLING = 286
