"""Shapes of load, a file for each: name it beside the locustfile, `-f locustfile.py,shapes/step.py`.

Each sets a rate that all users share (open loop); users are connections, and their number stays (`-u`, 4 by default).
"""
