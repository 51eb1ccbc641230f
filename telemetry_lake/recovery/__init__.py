"""What brings back pings that did not arrive: reconcile, replay, and rebuilding queue and ledger.

`remove_old` removes records that none of these needs any more.
"""
