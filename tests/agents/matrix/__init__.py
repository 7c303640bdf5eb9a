"""What real agent programs leave behind: program × ending × containment × user, measured.

`programs` reads programs.toml, `install` installs what it pins, `processes` finds and ends processes, `service` is an authority and a
daemon, `cell` runs one program once, `outside` runs one whose daemon lives outside the wrapper, `table` prints.
"""
