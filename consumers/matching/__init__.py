"""One leadership's worth of matching: what the leading matcher knows, made anew by each takeover from the store.

Changed only by the leading matcher's thread, inside its transactions. The rooms:

* :mod:`.asked` a request at work, and which certificate request serves for whom;
* :mod:`.rights` what the registry says: sites, shares, who may have jobs run where;
* :mod:`.pages` job ids, paged from the store per queue and priority;
* :mod:`.lobby` parked requests: found again by what arrives, by their deadlines, by their clients;
* :mod:`.answers` what is said to pilots;
* :mod:`.stock` the index kept in step with the store, by hints and in slices;
* :mod:`.limiting` limits on running jobs and starts; :mod:`.turns` whose turn it is, kept for the next leader;
* :mod:`.choosing` jobs for one request, side by side and in rounds;
* :mod:`.serving` :class:`Matching`, which ties them together: load, reconcile, choose, claim.
"""

from .asked import Asked, Key
from .lobby import MAX_SLOTS
from .serving import Matching

__all__ = ["MAX_SLOTS", "Asked", "Key", "Matching"]
