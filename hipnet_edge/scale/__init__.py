"""Cohorts larger than one machine: `hipnet-edge predict-cohort`.

One worker function (`answers`) is called by processes of this machine (`processes`) or by the
actors of a Ray cluster (`cluster`); what they answer is kept in a `journal` as it comes, and
written as one table (`results`) when all is there. `cohort` puts them together. The room sits above
the core; nothing of it is imported before it is used.
"""
