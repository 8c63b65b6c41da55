"""Reclaim: the LRU lists, kswapd, direct reclaim and the OOM killer."""
