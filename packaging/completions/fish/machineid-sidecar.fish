# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_machineid_sidecar_global_optspecs
    string join \n config= dev check-config max-stop= h/help V/version
end

function __fish_machineid_sidecar_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_machineid_sidecar_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_machineid_sidecar_using_subcommand
    set -l cmd (__fish_machineid_sidecar_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -l config -d 'The configuration file' -r -F
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -l max-stop -d 'With --check-config: fail when a stop could take longer than this' -r
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -l dev -d 'Also start an authority with an organisation and its keys on this host, all removed at the end'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -l check-config -d 'Check the configuration, print what it means, and exit'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -s h -l help -d 'Print help'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -s V -l version -d 'Print version'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -a "healthcheck" -d 'Check whether the running daemon responds: exit code 0, or 75 when none does'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_using_subcommand healthcheck" -l config -d 'The configuration file' -r -F
complete -c machineid-sidecar -n "__fish_machineid_sidecar_using_subcommand healthcheck" -l ready -d 'Also whether it has a decision no older than the lease; a deny counts: a revoked host is ready'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_using_subcommand healthcheck" -s h -l help -d 'Print help'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_using_subcommand help; and not __fish_seen_subcommand_from healthcheck help" -f -a "healthcheck" -d 'Check whether the running daemon responds: exit code 0, or 75 when none does'
complete -c machineid-sidecar -n "__fish_machineid_sidecar_using_subcommand help; and not __fish_seen_subcommand_from healthcheck help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
