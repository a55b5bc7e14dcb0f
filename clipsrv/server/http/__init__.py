"""Connections and what stands around every request: limits in time and number, ids, log lines, who may ask."""
