# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_machineid_authority_global_optspecs
    string join \n h/help V/version
end

function __fish_machineid_authority_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_machineid_authority_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_machineid_authority_using_subcommand
    set -l cmd (__fish_machineid_authority_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -s V -l version -d 'Print version'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -f -a "serve" -d 'Serve the API until SIGTERM or SIGINT'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -f -a "backup" -d 'Write a copy of a running authority\'s SQLite database, without stopping it'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -f -a "org" -d 'Administer the organisations of a running authority, through its admin socket'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -f -a "console-link" -d 'Print an address where a browser signs in to the console as the operator of a running authority: once, within five minutes'
complete -c machineid-authority -n "__fish_machineid_authority_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l listen -d 'The address to listen on; port 0 takes a free one. unix:PATH is a unix socket that every user of this host may open, in plain HTTP. May be given several times; sockets that a service manager hands over are served as well. For other hosts to reach it, give it a certificate or put a TLS proxy before it on the same machine [default: the sockets that are handed over, else 127.0.0.1:8424]' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l database -d 'The database: sqlite:PATH (the file is made when it is missing), or postgres://USER@HOST/DATABASE for several servers, with the password in PGPASSWORD or ~/.pgpass' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l database-connections -d 'How many connections to PostgreSQL this server uses at most; 5 or more, 6 with --fence' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l admin-socket -d 'The socket for `machineid-authority org` [default: the SQLite file with .admin.sock behind it]' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l public-url -d 'Where browsers reach this authority [default: the address it listens on]' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l tls-cert -d 'Speak HTTPS with this certificate, a PEM file that begins with the server\'s own; read again on SIGHUP' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l tls-key -d 'The certificate\'s private key, a PEM file' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l trusted-proxy -d 'A proxy, or a network of them, whose X-Forwarded-For counts; uid:N is a proxy of this user that comes by a unix socket. May be given several times' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l allowed-host -d 'Another name under which browsers reach the console, beside the one in --public-url; may be given several times' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l metrics-listen -d 'Serve /metrics, /healthz and /readyz at this address, in plain HTTP; metrics are served nowhere else' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l failed-keys-per-minute -d 'How many requests with a wrong key one address may make a minute; 0 for any number' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l signups-per-minute -d 'With --sign-up: how many organisations one address may create a minute; 0 for any number' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l management-per-minute -d 'How many management requests one org key may make a minute; 0 for any number. Validations and registrations are never limited' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l ephemeral-after -d 'Remove active devices that registered as ephemeral and were not seen for this long; 0s for never. One that is revoked is never removed' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l connections -d 'How many connections of clients to serve at once [default: as many as the limit of open files allows, less what the server needs itself]. When there are more, those without a valid key are closed first' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l audit-age -d 'Delete audit entries that are older than this; 0s for never' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l audit-mib -d 'About how many MiB the audit of one organisation has; its oldest entries are deleted for newer ones. 0 for any number' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l report-age -d 'Delete reports, stops and events of sidecars that are older than this' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l reserve-mib -d 'How many MiB of free space on the disk of a SQLite database are kept for stops: with less, nothing else that makes the database grow is accepted; 0 for none' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l reserve-file -d 'A file of 1 MiB for stops that the database does not take, on a disk that outlives a restart [default: the SQLite file with .reserve behind it; on PostgreSQL none, so that such stops are in memory alone]' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l log-format -d 'How to write the log, which goes to stderr' -r -f -a "text\t'Lines for people'
json\t'JSON, one object a line'"
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l database-allow-plain -d 'Connect to PostgreSQL on another host without verified TLS: an attacker on the way can then read and change what it decides'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l fence -d 'With synchronous replication: decide only while a standby confirms commits, so that an old primary that was cut off decides nothing more after 3 s. A standby that is away then stops decisions, too'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l sign-up -d 'Let every client that reaches this server create a free organisation over the API; without this only `machineid-authority org create` creates them'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l no-signup -d 'The default. Accepted so that a unit with the options of an earlier version still starts'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l allow-http -d 'Listen beyond loopback without TLS: org keys can then be read on the way'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l require-synchronous -d 'Serve only where PostgreSQL answers a change after a standby has it: refuse to start, and be not ready, while it does not'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -l log-validations -d 'Log validations, reports of sidecars and health checks too, a line of about 230 bytes each; without this they are only counted (--metrics-listen)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand backup" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand backup" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand backup" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "create" -d 'Add an organisation and show its key, once'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "list" -d 'List every organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "show" -d 'Show one organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "disable" -d 'Deny execution to all its devices (ORG_DISABLED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "enable" -d 'Undo `disable`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "freeze" -d 'Freeze its plan (PLAN_FROZEN)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "unfreeze" -d 'Undo `freeze`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "expire" -d 'End its entitlement (ENTITLEMENT_EXPIRED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "set-plan" -d 'Change its plan; active devices stay active, even above the new limit'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "set" -d 'Require one key or two for what gives back what a stop took'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "checkouts" -d 'List the plan changes that wait for confirmation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "confirm-checkout" -d 'Confirm a plan change'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "rotate-key" -d 'Create a new key and show it, once; the old one stays valid for a while'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "end-old-key" -d 'End the old key now, early: nothing should use it any more (see `show`)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "key" -d 'Keys with roles: for hosts, for stopping, for reading, for operators'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "delete" -d 'Delete it and its devices (ORG_NOT_FOUND); cannot be undone'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "audit" -d 'Show who changed what, when and why, the newest first'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and not __fish_seen_subcommand_from create list show disable enable freeze unfreeze expire set-plan set checkouts confirm-checkout rotate-key end-old-key key delete audit help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l name -d 'A name for people' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l plan -d 'The plan' -r -f -a "free\t'3 devices'
pro\t'25 devices'
scale\t'250 devices'
max\t'1,000 devices'"
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l limit -d 'A limit of active devices instead of the plan\'s' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from list" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from list" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from list" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from show" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from show" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from show" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from disable" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from disable" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from disable" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from disable" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -l own -d 'Take back the organisation\'s own switch too, which otherwise one of its admin keys takes back in the console'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from freeze" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from freeze" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from freeze" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from freeze" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from freeze" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from unfreeze" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from unfreeze" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from unfreeze" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from unfreeze" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from unfreeze" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l at -d 'When, as in 2027-01-31T00:00:00Z [default: now]' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l never -d 'Remove the end: undoes `expire`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from expire" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -l limit -d 'A limit of active devices instead of the plan\'s [default: the plan\'s]' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set-plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -l restore-needs -d 'How many keys a restore needs. With 2, what unrevokes, removes a revoked device, switches execution on or makes a key that may restore waits until a second key of the role operate or admin confirms it (`machineid approve`); execution and keys need a second one of the role admin. Warns when there are not enough keys. With 1 again, what waits is void' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from checkouts" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from checkouts" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from checkouts" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from checkouts" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from checkouts" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -l link -d 'Confirm nothing yet: print an address where a browser confirms it, once'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from confirm-checkout" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l overlap -d 'How long the old key stays valid beside the new one; 0s ends it at once, as for a key that was stolen. There are never more than two: a second rotation ends the oldest at once' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l yes -d 'Rotate again although devices still use the key before the current one, which ends then'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from rotate-key" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from end-old-key" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from end-old-key" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from end-old-key" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from end-old-key" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from end-old-key" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -f -a "create" -d 'Make a key with a role and show it, once'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -f -a "list" -d 'List the keys with their roles and their last uses; never their texts'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -f -a "revoke" -d 'Make a key invalid, now'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -f -a "rotate" -d 'Make a key in the place of one and show it, once; the old one stays valid for a while'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from key" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -l yes -d 'Really'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l device -d 'Only changes of this device' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l limit -d 'Show at most this many' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l before -d 'Only changes with a lower number than this' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l reason -d 'The reason, for the audit: one line of up to 200 characters' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from audit" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "create" -d 'Add an organisation and show its key, once'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "list" -d 'List every organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Deny execution to all its devices (ORG_DISABLED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Undo `disable`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "freeze" -d 'Freeze its plan (PLAN_FROZEN)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "unfreeze" -d 'Undo `freeze`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "expire" -d 'End its entitlement (ENTITLEMENT_EXPIRED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "set-plan" -d 'Change its plan; active devices stay active, even above the new limit'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "set" -d 'Require one key or two for what gives back what a stop took'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "checkouts" -d 'List the plan changes that wait for confirmation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "confirm-checkout" -d 'Confirm a plan change'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "rotate-key" -d 'Create a new key and show it, once; the old one stays valid for a while'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "end-old-key" -d 'End the old key now, early: nothing should use it any more (see `show`)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "key" -d 'Keys with roles: for hosts, for stopping, for reading, for operators'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "delete" -d 'Delete it and its devices (ORG_NOT_FOUND); cannot be undone'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "audit" -d 'Show who changed what, when and why, the newest first'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand org; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand console-link" -l admin-socket -d 'The running server\'s admin socket' -r -F
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand console-link" -l database -d 'The running server\'s SQLite database, beside which its admin socket is unless it was put elsewhere' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand console-link" -l org -d 'Lead to this organisation\'s pages instead of the list of all' -r
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand console-link" -l json -d 'Print JSON'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand console-link" -s h -l help -d 'Print help'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and not __fish_seen_subcommand_from serve backup org console-link help" -f -a "serve" -d 'Serve the API until SIGTERM or SIGINT'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and not __fish_seen_subcommand_from serve backup org console-link help" -f -a "backup" -d 'Write a copy of a running authority\'s SQLite database, without stopping it'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and not __fish_seen_subcommand_from serve backup org console-link help" -f -a "org" -d 'Administer the organisations of a running authority, through its admin socket'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and not __fish_seen_subcommand_from serve backup org console-link help" -f -a "console-link" -d 'Print an address where a browser signs in to the console as the operator of a running authority: once, within five minutes'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and not __fish_seen_subcommand_from serve backup org console-link help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "create" -d 'Add an organisation and show its key, once'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "list" -d 'List every organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "show" -d 'Show one organisation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "disable" -d 'Deny execution to all its devices (ORG_DISABLED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "enable" -d 'Undo `disable`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "freeze" -d 'Freeze its plan (PLAN_FROZEN)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "unfreeze" -d 'Undo `freeze`'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "expire" -d 'End its entitlement (ENTITLEMENT_EXPIRED)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "set-plan" -d 'Change its plan; active devices stay active, even above the new limit'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "set" -d 'Require one key or two for what gives back what a stop took'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "checkouts" -d 'List the plan changes that wait for confirmation'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "confirm-checkout" -d 'Confirm a plan change'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "rotate-key" -d 'Create a new key and show it, once; the old one stays valid for a while'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "end-old-key" -d 'End the old key now, early: nothing should use it any more (see `show`)'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "key" -d 'Keys with roles: for hosts, for stopping, for reading, for operators'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "delete" -d 'Delete it and its devices (ORG_NOT_FOUND); cannot be undone'
complete -c machineid-authority -n "__fish_machineid_authority_using_subcommand help; and __fish_seen_subcommand_from org" -f -a "audit" -d 'Show who changed what, when and why, the newest first'
