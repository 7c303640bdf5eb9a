#!/bin/sh
# Installs the programs, their units, manual pages and completions, from an unpacked release or from a checkout that was built:
#
#     sudo ./install.sh                                   below /usr/local, both parts
#     ./install.sh --destdir DIR --prefix /usr --part sidecar
#     sudo ./install.sh --archive machineid-sidecar-VERSION-TARGET.tar.gz --signers FILE
#
#   --archive FILE   install what is in this release, after its signature was verified: SHA256SUMS and SHA256SUMS.sig are beside it
#   --signers FILE   the line `releases@machineid.io ` and the project's public key; take it from another place than the release
#   --bin DIR        where the programs are [default: bin beside this script, else target/dist/bin]
#   --prefix DIR     [default: /usr/local]
#   --destdir DIR    install into DIR as if it were /
#   --part PART      sidecar, authority or all [default: all]
#   --uninstall      remove what the same options installed; configuration, key and state stay
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin='' destdir='' prefix=/usr/local part=all undo='' archive='' signers=''
while [ $# -gt 0 ]; do
    case $1 in
        --archive) archive=$2; shift 2 ;;
        --signers) signers=$2; shift 2 ;;
        --bin) bin=$2; shift 2 ;;
        --prefix) prefix=$2; shift 2 ;;
        --destdir) destdir=$2; shift 2 ;;
        --part) part=$2; shift 2 ;;
        --uninstall) undo=yes; shift ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
case $part in sidecar | authority | all) ;; *) echo "install.sh: --part is sidecar, authority or all" >&2; exit 2 ;; esac

# The archive's own copy of this script goes on, once the archive is known to be the project's.
if [ -n "$archive" ]; then
    refuse() { echo "install.sh: $1; nothing was installed" >&2; exit 1; }
    [ -z "$bin$undo" ] || { echo 'install.sh: --archive goes neither with --bin nor with --uninstall' >&2; exit 2; }
    [ -n "$signers" ] || refuse "name the file with the project's public key: --signers"
    command -v ssh-keygen > /dev/null || refuse 'there is no ssh-keygen to verify the signature (package openssh-client)'
    beside=$(cd "$(dirname "$archive")" && pwd) name=$(basename "$archive")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Copies: what is verified must be what is installed.
    for file in SHA256SUMS SHA256SUMS.sig "$name"; do
        cp "$beside/$file" "$work/" 2> /dev/null || refuse "there is no $beside/$file"
    done
    ssh-keygen -q -Y verify -f "$signers" -I releases@machineid.io -n machineid-release -s "$work/SHA256SUMS.sig" < "$work/SHA256SUMS" ||
        refuse "$beside/SHA256SUMS.sig is no signature of $beside/SHA256SUMS by a key in $signers"
    awk -v name="$name" '$2 == name' "$work/SHA256SUMS" > "$work/sum"
    [ "$(wc -l < "$work/sum")" = 1 ] || refuse "SHA256SUMS does not name $name"
    (cd "$work" && sha256sum --check --strict --status sum) || refuse "$archive is not the file that was signed"
    mkdir "$work/unpacked"
    tar -xzf "$work/$name" -C "$work/unpacked" --strip-components=1
    "$work/unpacked/install.sh" --destdir "$destdir" --prefix "$prefix" --part "$part"
    exit
fi

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
    machineid init          # asks for the authority, the key and the device; enables the unit; ends with machineid doctor
END
fi
