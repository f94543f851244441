"""The one event that workflows sends upward."""

from django.dispatch import Signal

# Sent inside the transaction that ended it, with `instance_id`, `cycle_id` and `state`; again when an ended
# instance is marked as a success. A receiver that raises undoes the whole end.
cycle_instance_ended = Signal()
