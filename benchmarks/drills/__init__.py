"""Drills: break each part of a real stack, see its alarm fire, mend it by its runbook, see it resolve."""
