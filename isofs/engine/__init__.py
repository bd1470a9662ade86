"""The engine: main, the suspects' views of it, and the calls on both. Plain functions; nothing here waits.

Read in this order: `state` (what is held in memory), `tree` (reaching main), `views` (what a suspect sees),
`isolation` (what a suspect changes), `trusted` (what changing main means for suspects), `calls`.
"""
