"""Why jobs wait: questions answered from the read side, by the same code as the match.

The rooms:

* :mod:`.snapshot` what is known at one moment: registry, task queues, pilots' offers, who leads, recent matches;
* :mod:`.outlooks` what it means for jobs of one class and owner: obstacles, holds, place, estimate;
* :mod:`.imagined` jobs that nobody has submitted yet;
* :mod:`.questions` from a question to its answer, and who may hear it;
* :mod:`.desk` lets questions wait for their answers outside of any transaction, and takes the snapshots.
"""
