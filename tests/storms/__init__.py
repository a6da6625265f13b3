"""Storms and soaks: many instances of the built function before a server of a hundred slots, and one for an hour."""
