"""Driving on a highway by the paper's rules, in CARLA or in a small world of its own that is never called CARLA."""
