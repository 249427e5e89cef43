"""What a change of policies changes: a plan, proved, with a request for each thing that is new."""
