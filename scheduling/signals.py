"""The one event that scheduling sends upward."""

from django.dispatch import Signal

# Sent inside the transaction that ended the batch, with `batch_id`, `state` and `trigger`. A receiver that
# raises undoes the whole end, and the worker reports it again.
batch_ended = Signal()
