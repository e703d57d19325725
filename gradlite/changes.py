"""A count of the changes that a captured step has to notice: modes, members, hooks, flags, devices.

Whatever changes how a module or a tensor takes part in a step adds one; a captured step looks at
the count alone to know that nothing has changed.
"""

count = [0]
