"""Choose the samples whose output is nearest to zero."""

import alcore


@alcore.hookimpl
def alcore_query_strategies():
    """Offer ``nearzero``; the class is named by a string, so that listing plugins imports no torch."""
    return {"nearzero": "alcore_nearzero.query:NearZeroQuery"}
