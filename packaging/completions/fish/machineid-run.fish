complete -c machineid-run -l device -d 'The agent\'s own device; without it, the host\'s counts' -r -f
complete -c machineid-run -l name -d 'A name for people, shown by machineid status' -r -f
complete -c machineid-run -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid-run -l stop-signal -d 'The first signal of a stop [default: the daemon\'s, TERM unless configured]' -r -f
complete -c machineid-run -l stop-grace -d 'Time from it to SIGKILL, no longer than the daemon\'s [default: the daemon\'s, 10s unless configured]' -r -f
complete -c machineid-run -l timeout -d 'How long an answer may take [default: 5s]' -r -f
complete -c machineid-run -l wait -d 'Keep asking until it is allowed, also while there is no daemon or the answer is no' -r
complete -c machineid-run -l containment -d 'The containment of the process tree: a control group of its own where one is available (auto), or one of these and nothing weaker: a control group, a PID namespace, or wrapper and guardian alone [default: auto]' -r -f -a "auto\t''
cgroup\t''
pidns\t''
subreaper\t''"
complete -c machineid-run -l leftovers -d 'What happens to processes the command leaves behind: they are stopped and named, or waited for, still supervised [default: stop]' -r -f -a "stop\t''
wait\t''"
complete -c machineid-run -l outside -d 'What to do when the command is an agent (codex, cline, claude) whose daemon already runs outside: a stop would not reach what that daemon does for it [default: refuse]' -r -f -a "refuse\t''
allow\t''"
complete -c machineid-run -l status-file -d 'Write the outcome to this file, as JSON' -r -F
complete -c machineid-run -l isolate -d 'Hide agents\' daemons, the user manager, tmux and container engines from the command'
complete -c machineid-run -s q -l quiet -d 'Print errors only'
complete -c machineid-run -s h -l help -d 'Print this'
complete -c machineid-run -s V -l version -d 'Print the version'
