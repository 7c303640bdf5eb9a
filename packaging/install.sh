#!/bin/sh
# Installs the programs, their units, manual pages and completions, from an unpacked release or from a checkout that was built:
#
#     sudo ./install.sh                                   below /usr/local, both parts
#     ./install.sh --destdir DIR --prefix /usr --part sidecar
#
#   --bin DIR        where the programs are [default: bin beside this script, else target/dist/bin]
#   --prefix DIR     [default: /usr/local]
#   --destdir DIR    install into DIR as if it were /
#   --part PART      sidecar, authority or all [default: all]
#   --uninstall      remove what the same options installed; configuration, key and state stay
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin='' destdir='' prefix=/usr/local part=all undo=''
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --prefix) prefix=$2; shift 2 ;;
        --destdir) destdir=$2; shift 2 ;;
        --part) part=$2; shift 2 ;;
        --uninstall) undo=yes; shift ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
case $part in sidecar | authority | all) ;; *) echo "install.sh: --part is sidecar, authority or all" >&2; exit 2 ;; esac

# This script is in packaging in a checkout, and at the top of a release.
if [ -d "$here/systemd" ]; then files=$here top=$here/..; else files=$here/packaging top=$here; fi
[ -n "$bin" ] || for bin in "$here/bin" "$here/../target/dist/bin"; do [ -d "$bin" ] && break; done

# The package installs units and their helpers in /usr/lib; otherwise they go to /etc or /usr/local/lib.
lib=$prefix/lib
put() { # MODE FILE PLACE
    place=$destdir$3
    if [ -n "$undo" ]; then rm -f "$place"; return; fi
    mkdir -p "$(dirname "$place")"
    cp "$2" "$place.new"
    chmod "$1" "$place.new"
    mv "$place.new" "$place"
}
# Writes the programs' paths into the unit.
unit() { # FILE PLACE
    if [ -z "$undo" ]; then
        sed "s|/usr/bin/machineid|$prefix/bin/machineid|g; s|/usr/libexec/machineid|$prefix/libexec/machineid|g" "$1" > "$here/.unit.$$"
        put 644 "$here/.unit.$$" "$2"
        rm -f "$here/.unit.$$"
    else
        put 644 "$1" "$2"
    fi
}
# An operator may have edited this file, so it is never overwritten here. (In a package, dpkg decides.)
config() { # MODE FILE PLACE
    if [ -n "$undo" ]; then return; fi
    if [ -e "$destdir$3" ]; then put "$1" "$2" "$3.new-default"; else put "$1" "$2" "$3"; fi
}
program() {
    put 755 "$bin/$1" "$prefix/bin/$1"
    put 644 "$files/completions/bash/$1" "$prefix/share/bash-completion/completions/$1"
    put 644 "$files/completions/zsh/_$1" "$prefix/share/zsh/vendor-completions/_$1"
    put 644 "$files/completions/fish/$1.fish" "$prefix/share/fish/vendor_completions.d/$1.fish"
}
pages() { for page in "$@"; do put 644 "$page" "$prefix/share/man/man1/$(basename "$page")"; done; }

if [ "$part" != authority ]; then
    for name in machineid-sidecar machineid-run machineid; do program $name; done
    put 755 "$bin/machineid-leaf" "$prefix/libexec/machineid-leaf"
    for page in "$files"/man/*.1; do
        case $(basename "$page") in machineid-authority*) ;; *) pages "$page" ;; esac
    done
    for name in machineid-sidecar.service machineid-sidecar.socket machineid-sidecar-leaf.socket \
        machineid-sidecar-leaf.service machineid-sidecar-key.path machineid-sidecar-key.service machineid-agent@.service; do
        unit "$files/systemd/$name" "$lib/systemd/system/$name"
    done
    unit "$files/systemd/user/machineid-sidecar.service" "$lib/systemd/user/machineid-sidecar.service"
    put 644 "$files/systemd/sysusers.d/machineid-sidecar.conf" "$lib/sysusers.d/machineid-sidecar.conf"
    put 644 "$files/systemd/tmpfiles.d/machineid-sidecar.conf" "$lib/tmpfiles.d/machineid-sidecar.conf"
    # A package copies it to /etc/apparmor.d where the kernel restricts user namespaces.
    put 644 "$files/apparmor/machineid-run" "$prefix/share/machineid-sidecar/apparmor/machineid-run"
    config 644 "$files/needrestart/machineid.conf" /etc/needrestart/conf.d/machineid.conf
    config 644 "$top/machineid-sidecar.toml" /etc/machineid/machineid-sidecar.toml
fi
if [ "$part" != sidecar ]; then
    program machineid-authority
    pages "$files"/man/machineid-authority*.1
    for name in machineid-authority.service machineid-authority.socket; do
        unit "$files/systemd/$name" "$lib/systemd/system/$name"
    done
    put 644 "$files/systemd/sysusers.d/machineid-authority.conf" "$lib/sysusers.d/machineid-authority.conf"
    config 644 "$files/systemd/machineid-authority.default" /etc/default/machineid-authority
fi

if [ -z "$destdir" ] && [ -z "$undo" ]; then
    cat <<END
Installed below $prefix. As root, where systemd is the init system:

    systemd-sysusers && systemd-tmpfiles --create machineid-sidecar.conf && systemctl daemon-reload
    install -m 600 /dev/stdin /etc/machineid/org-key        # paste the key, then Ctrl-D
    systemctl enable --now machineid-sidecar
    machineid doctor

With an authority of your own, the key is one of the role host: machineid-authority org key create ORG --role host
END
fi
