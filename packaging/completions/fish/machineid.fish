# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_machineid_global_optspecs
    string join \n h/help V/version
end

function __fish_machineid_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_machineid_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_machineid_using_subcommand
    set -l cmd (__fish_machineid_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c machineid -n "__fish_machineid_needs_command" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_needs_command" -s V -l version -d 'Print version'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "check" -d 'Ask this host\'s daemon whether a device may run now (exit 0 allowed, 77 denied, 75 could not find out)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "hook" -d 'Answer an agent\'s question before a tool call, in its own form; install this hook in the agent\'s settings'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "status" -d 'Show the daemon\'s state on this host: devices, agents, the authority, the stop bound'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "events" -d 'Show the events on this host: decisions, starts, stops, the authority, reloads'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "stop" -d 'Stop agents on this host now, without the authority, and wait until they are gone (exit 1 when one is not)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "release" -d 'Undo `stop --hold` on this host; starts no agent'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "adopt" -d 'Put a process that runs already, with all its descendants, under supervision'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "audit" -d 'The daemon\'s audit file'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "drill" -d 'Stop a canary tree under real enforcement and measure until its last process is gone (exit 1 when one survives)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "drill-canary" -d 'The role of a canary, and the socket where it reports'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "init" -d 'Set up this host: configuration, key, daemon; asks for the authority and the device\'s name'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "doctor" -d 'Check everything that enforcement on this host needs, with a remedy for each problem (exit 1 when a check fails)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "register" -d 'Register devices with the authority (safe to repeat)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "validate" -d 'Ask the authority whether devices may run now (exit 0 all allowed, 77 one denied, 75 could not find out)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "revoke" -d 'Stop devices: deny them from their next validation on'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "unrevoke" -d 'Undo a revoke; starts no agent'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "restore" -d 'Undo a revoke; starts no agent'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "remove" -d 'Remove devices, which frees their places (to stop a device, revoke it)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "list" -d 'Show the organisation\'s devices'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "usage" -d 'Show the plan and how much of it is used'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "checkout" -d 'Print the address at which a larger plan can be bought'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "key" -d 'Keys with roles, for an admin key: for hosts, for stopping, for reading, for operators'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "approvals" -d 'Show the restores that wait for a second key (where restores need two)'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "approve" -d 'Confirm a restore that another key asked for; it is then done'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "reject" -d 'End a request for a restore without doing it'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "org" -d 'Organisations: create one, switch its execution off and on'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "completion" -d 'Print the completion of a shell for one of the programs'
complete -c machineid -n "__fish_machineid_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand check" -l device -d 'The device to ask about [default: the calling agent\'s own, else the host\'s]' -r
complete -c machineid -n "__fish_machineid_using_subcommand check" -l max-age -d 'Accept an answer up to this old, as in 2s, if the daemon\'s configuration allows it' -r
complete -c machineid -n "__fish_machineid_using_subcommand check" -l timeout -d 'Give up after this time, as in 500ms, with exit code 75; a daemon that works answers within a few seconds' -r
complete -c machineid -n "__fish_machineid_using_subcommand check" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand check" -l json -d 'Print the daemon\'s answer as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand check" -s q -l quiet -d 'Print nothing: the exit code says it'
complete -c machineid -n "__fish_machineid_using_subcommand check" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -l device -d 'The device to ask about [default: the calling agent\'s own, else the host\'s]' -r
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -l timeout -d 'Block the call when there is no answer within this time [default: 3s]' -r
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -a "install" -d 'Put the hook into an agent\'s settings; safe to repeat. All other settings stay as they are, a copy is kept beside them'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -a "uninstall" -d 'Take the hook out of an agent\'s settings again'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and not __fish_seen_subcommand_from install uninstall help" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l device -d 'The device to ask about [default: the calling agent\'s own, else the host\'s]' -r
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l timeout -d 'Block the call when there is no answer within this time [default: 3s]' -r
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l project -d 'The settings of the project in the working directory'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l user -d 'Your own settings (the default)'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l managed -d 'The settings for all users of this host, which hold against their own'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -l print -d 'Print what would be written, and change nothing'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from uninstall" -l project -d 'The settings of the project in the working directory'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from uninstall" -l user -d 'Your own settings (the default)'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from uninstall" -l managed -d 'The settings for all users of this host, which hold against their own'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from uninstall" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from help" -f -a "install" -d 'Put the hook into an agent\'s settings; safe to repeat. All other settings stay as they are, a copy is kept beside them'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from help" -f -a "uninstall" -d 'Take the hook out of an agent\'s settings again'
complete -c machineid -n "__fish_machineid_using_subcommand hook; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand status" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand status" -l json -d 'Print the daemon\'s answer as JSON; with --watch one object a line'
complete -c machineid -n "__fish_machineid_using_subcommand status" -s w -l watch -d 'Keep showing it until Ctrl-C: on a terminal the whole page each second, else a line for each change'
complete -c machineid -n "__fish_machineid_using_subcommand status" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand events" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand events" -s f -l follow -d 'Continue with new events until Ctrl-C; waits while the daemon restarts'
complete -c machineid -n "__fish_machineid_using_subcommand events" -l json -d 'Print one JSON object a line'
complete -c machineid -n "__fish_machineid_using_subcommand events" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l device -d 'Every agent of this device' -r
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l all -d 'Every agent that you may stop: your own, or as root those of all users'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l hold -d 'Deny their devices on this host until machineid release, also after a restart; then every agent of these devices is stopped (with --all: the host\'s, which rules all)'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l no-wait -d 'Do not wait until they are gone'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l yes -d 'Do not ask for confirmation of --all'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand stop" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand release" -l device -d 'This device' -r
complete -c machineid -n "__fish_machineid_using_subcommand release" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand release" -l all -d 'All held devices'
complete -c machineid -n "__fish_machineid_using_subcommand release" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand release" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand adopt" -l device -d 'The agent\'s own device; without it, the host\'s counts' -r
complete -c machineid -n "__fish_machineid_using_subcommand adopt" -l name -d 'A name for people, shown by machineid status' -r
complete -c machineid -n "__fish_machineid_using_subcommand adopt" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand adopt" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand adopt" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -f -a "verify" -d 'Verify that an audit file has no edits and no gaps (exit 1 when it has)'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from verify" -l key-file -d 'The file with the key of the records, where the daemon has one' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from verify" -l expect -d 'The hash that the last record must have' -r
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from verify" -l json -d 'Print the findings as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Verify that an audit file has no edits and no gaps (exit 1 when it has)'
complete -c machineid -n "__fish_machineid_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand drill" -l containment -d 'The containment of the canaries, as for machineid-run: auto, cgroup, pidns or subreaper [default: auto]' -r
complete -c machineid -n "__fish_machineid_using_subcommand drill" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand drill" -l json -d 'Print the result as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand drill" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand drill-canary" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c machineid -n "__fish_machineid_using_subcommand init" -l url -d 'The authority: its URL, unix:PATH, or none: then one of your own is started on this host' -r
complete -c machineid -n "__fish_machineid_using_subcommand init" -l key-file -d 'A file with this host\'s key, which is copied; with an authority of your own, a key of the role host' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand init" -l device -d 'This host\'s device id, in which {hostname}, {machine_id} and {env:NAME} are replaced [default: host:{hostname}:{machine_id}]' -r
complete -c machineid -n "__fish_machineid_using_subcommand init" -l directory -d 'Keep everything below this directory, socket and records too: for a trial, or a second daemon' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand init" -l yes -d 'Ask nothing; then --url must be there, and --key-file unless that is none'
complete -c machineid -n "__fish_machineid_using_subcommand init" -l no-start -d 'Start nothing: print the line that does'
complete -c machineid -n "__fish_machineid_using_subcommand init" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand doctor" -l socket -d 'The daemon\'s socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else $XDG_RUNTIME_DIR/machineid/sidecar.sock]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand doctor" -l json -d 'Print the checks as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand register" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand register" -l ephemeral -d 'Whether a self-hosted authority removes them when they have not been seen for a while [default: unchanged]' -r -f -a "true\t''
false\t''"
complete -c machineid -n "__fish_machineid_using_subcommand register" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand register" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand register" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand register" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand register" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand register" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand register" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand register" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l json -d 'Print the decisions as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand validate" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand validate" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l wait -d 'Wait until every sidecar has confirmed that nothing runs any more, or, at the end of DURATION, name those that have not, with the time by which their own lease stops their agents [default DURATION: as long as a sidecar that reaches the authority may take]' -r
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l reason -d 'The reason, in one line: kept in the authority\'s audit, and shown where agents are stopped' -r
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l all-active -d 'Every active device of the organisation'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l dry-run -d 'Show which devices would be affected, and change nothing'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l yes -d 'Do not ask for confirmation'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand revoke" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l reason -d 'The reason, in one line: kept in the authority\'s audit, and shown where agents are stopped' -r
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l all-revoked -d 'Every revoked device of the organisation, the newest revoked first, as far as the plan has places'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l dry-run -d 'Show which devices would be affected, and change nothing'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l yes -d 'Do not ask for confirmation'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand unrevoke" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l reason -d 'The reason, in one line: kept in the authority\'s audit, and shown where agents are stopped' -r
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l all-revoked -d 'Every revoked device of the organisation, the newest revoked first, as far as the plan has places'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l dry-run -d 'Show which devices would be affected, and change nothing'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l yes -d 'Do not ask for confirmation'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand restore" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l from -d 'Read device ids from a file too, one a line (`-` for stdin); empty lines and lines that begin with # are skipped' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l reason -d 'The reason, in one line: kept in the authority\'s audit, and shown where agents are stopped' -r
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l revoked -d 'Remove revoked devices too, without asking; they can register again and are then allowed. --yes does not mean this'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l dry-run -d 'Show which devices would be affected, and change nothing'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l yes -d 'Do not ask for confirmation'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand remove" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand list" -s q -l query -d 'Only devices whose id contains this text' -r
complete -c machineid -n "__fish_machineid_using_subcommand list" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand list" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand list" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand list" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand list" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand list" -l active -d 'Only active devices'
complete -c machineid -n "__fish_machineid_using_subcommand list" -l revoked -d 'Only revoked devices'
complete -c machineid -n "__fish_machineid_using_subcommand list" -l json -d 'Print the list as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand list" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand list" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l json -d 'Print the answer as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand usage" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand usage" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l plan -d 'The plan to buy' -r -f -a "pro\t''
scale\t''
max\t''"
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l json -d 'Print the address as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand checkout" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -f -a "create" -d 'Make a key with a role and print it, this once'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -f -a "list" -d 'Show the keys with their roles and their last uses, never their texts'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -f -a "revoke" -d 'Make a key invalid, now'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -f -a "rotate" -d 'Make a key in the place of one and print it, this once; the old one stays valid for a while'
complete -c machineid -n "__fish_machineid_using_subcommand key; and not __fish_seen_subcommand_from create list revoke rotate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l role -d 'What the key may do' -r -f -a "host\t''
stop\t''
read\t''
operate\t''
admin\t''"
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l devices -d 'Of a host key: only devices whose ids match, as in \'k8s:*\' [default: every device]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l expires -d 'How long it is valid, as in 720h [default: until it is revoked]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l name -d 'A name for people, also in the audit: letters, digits and . _ -' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l json -d 'Print the key as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l json -d 'Print the keys as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l json -d 'Print the outcome as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l overlap -d 'How long the old key stays valid beside the new one; 0s ends it at once' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l json -d 'Print the key as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "create" -d 'Make a key with a role and print it, this once'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show the keys with their roles and their last uses, never their texts'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Make a key invalid, now'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "rotate" -d 'Make a key in the place of one and print it, this once; the old one stays valid for a while'
complete -c machineid -n "__fish_machineid_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l all -d 'Also those that were approved, rejected, void or expired within 30 days'
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l json -d 'Print the requests as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand approvals" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l json -d 'Print the request as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand approve" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand approve" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l json -d 'Print the request as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand reject" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand reject" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand org; and not __fish_seen_subcommand_from create disable enable help" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand org; and not __fish_seen_subcommand_from create disable enable help" -f -a "create" -d 'Create a free organisation and print its org key, which is shown only this once'
complete -c machineid -n "__fish_machineid_using_subcommand org; and not __fish_seen_subcommand_from create disable enable help" -f -a "disable" -d 'Deny execution to every device of the organisation (ORG_DISABLED); all its agents stop'
complete -c machineid -n "__fish_machineid_using_subcommand org; and not __fish_seen_subcommand_from create disable enable help" -f -a "enable" -d 'Undo `disable`, with an admin key; the switch of the authority\'s operator stays as it is'
complete -c machineid -n "__fish_machineid_using_subcommand org; and not __fish_seen_subcommand_from create disable enable help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l json -d 'Print the key as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l yes -d 'Do not ask for confirmation'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l json -d 'Print the state of the switches as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l reason -d 'The reason, in one line: kept in the authority\'s audit' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l url -d 'The authority, also unix:PATH [default: $MACHINEID_BASE_URL]; for the service: https://machineid.io' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l authority-user -d 'The user who may run an authority on this host, beside root and yourself: no other user\'s process is sent the key [default: $MACHINEID_AUTHORITY_USER, else machineid-authority]' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l timeout -d 'Time for one request and its whole answer' -r
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l ca-file -d 'Certificates (PEM) to trust instead of the host\'s own store' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l org-key-file -d 'A file that holds the org key [default: the key in $MACHINEID_ORG_KEY]' -r -F
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l json -d 'Print the state of the switches as JSON'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -l allow-http -d 'Allow plain http to another host; the org key then travels unencrypted'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "create" -d 'Create a free organisation and print its org key, which is shown only this once'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Deny execution to every device of the organisation (ORG_DISABLED); all its agents stop'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Undo `disable`, with an admin key; the switch of the authority\'s operator stays as it is'
complete -c machineid -n "__fish_machineid_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand completion" -l program -d 'The program' -r -f -a "machineid\t''
machineid-run\t''
machineid-sidecar\t''
machineid-authority\t''"
complete -c machineid -n "__fish_machineid_using_subcommand completion" -s h -l help -d 'Print help'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "check" -d 'Ask this host\'s daemon whether a device may run now (exit 0 allowed, 77 denied, 75 could not find out)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "hook" -d 'Answer an agent\'s question before a tool call, in its own form; install this hook in the agent\'s settings'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "status" -d 'Show the daemon\'s state on this host: devices, agents, the authority, the stop bound'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "events" -d 'Show the events on this host: decisions, starts, stops, the authority, reloads'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "stop" -d 'Stop agents on this host now, without the authority, and wait until they are gone (exit 1 when one is not)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "release" -d 'Undo `stop --hold` on this host; starts no agent'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "adopt" -d 'Put a process that runs already, with all its descendants, under supervision'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "audit" -d 'The daemon\'s audit file'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "drill" -d 'Stop a canary tree under real enforcement and measure until its last process is gone (exit 1 when one survives)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "drill-canary" -d 'The role of a canary, and the socket where it reports'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "init" -d 'Set up this host: configuration, key, daemon; asks for the authority and the device\'s name'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "doctor" -d 'Check everything that enforcement on this host needs, with a remedy for each problem (exit 1 when a check fails)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "register" -d 'Register devices with the authority (safe to repeat)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "validate" -d 'Ask the authority whether devices may run now (exit 0 all allowed, 77 one denied, 75 could not find out)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "revoke" -d 'Stop devices: deny them from their next validation on'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "unrevoke" -d 'Undo a revoke; starts no agent'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "remove" -d 'Remove devices, which frees their places (to stop a device, revoke it)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "list" -d 'Show the organisation\'s devices'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "usage" -d 'Show the plan and how much of it is used'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "checkout" -d 'Print the address at which a larger plan can be bought'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "key" -d 'Keys with roles, for an admin key: for hosts, for stopping, for reading, for operators'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "approvals" -d 'Show the restores that wait for a second key (where restores need two)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "approve" -d 'Confirm a restore that another key asked for; it is then done'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "reject" -d 'End a request for a restore without doing it'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "org" -d 'Organisations: create one, switch its execution off and on'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "completion" -d 'Print the completion of a shell for one of the programs'
complete -c machineid -n "__fish_machineid_using_subcommand help; and not __fish_seen_subcommand_from check hook status events stop release adopt audit drill drill-canary init doctor register validate revoke unrevoke remove list usage checkout key approvals approve reject org completion help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from hook" -f -a "install" -d 'Put the hook into an agent\'s settings; safe to repeat. All other settings stay as they are, a copy is kept beside them'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from hook" -f -a "uninstall" -d 'Take the hook out of an agent\'s settings again'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "verify" -d 'Verify that an audit file has no edits and no gaps (exit 1 when it has)'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "create" -d 'Make a key with a role and print it, this once'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "list" -d 'Show the keys with their roles and their last uses, never their texts'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "revoke" -d 'Make a key invalid, now'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "rotate" -d 'Make a key in the place of one and print it, this once; the old one stays valid for a while'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "create" -d 'Create a free organisation and print its org key, which is shown only this once'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "disable" -d 'Deny execution to every device of the organisation (ORG_DISABLED); all its agents stop'
complete -c machineid -n "__fish_machineid_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "enable" -d 'Undo `disable`, with an admin key; the switch of the authority\'s operator stays as it is'
