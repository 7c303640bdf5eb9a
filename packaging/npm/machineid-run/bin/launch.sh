# shellcheck shell=sh
# shellcheck disable=SC2154 # `self` is from the script that reads this one.
# Replaces this shell by the program, so that no process stands between: signals, exit code, terminal and streams are the program's own.
# A launcher in JavaScript could not do that: Node.js has no exec.
name=${self##*/}
case $(uname -m) in
    x86_64) platform=linux-x64 ;;
    aarch64) platform=linux-arm64 ;;
    *)
        echo "$name: there is no package for this processor ($(uname -m)); the packages are for x86-64 and aarch64" >&2
        exit 125
        ;;
esac
# Where Node.js would look for a module. npm puts the package beside this one, pnpm too, into its store; others put it below.
directory=$self
while [ -n "$directory" ]; do
    directory=${directory%/*}
    program=$directory/node_modules/@machineid-sidecar/$platform/bin/$name
    [ ! -x "$program" ] || exec "$program" "$@"
done
echo "$name: the package @machineid-sidecar/$platform is missing. It is an optional dependency of machineid-run: install that again," \
    "without --omit=optional" >&2
exit 125
