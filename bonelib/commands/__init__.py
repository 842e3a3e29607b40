"""What the commands of ``bonelib`` do: one function each, named as the command.

Arguments come in, an exit code goes out; rooms meet here as they do in a notebook. What they return
is printed here and nowhere else.
"""
