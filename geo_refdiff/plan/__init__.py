"""The plan of a run: its records, how it is made, and the surveys that it rests on."""
