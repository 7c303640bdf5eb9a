//! Programs beside the agents, and the sockets at which they are asked.

/// Container engines.
pub(crate) const CONTAINER_ENGINES: &[&str] = &[
    "dockerd",
    "containerd",
    "containerd-shim-runc-v2",
    "podman",
    "conmon",
    "crio",
    "buildkitd",
    "lxd",
    "incusd",
    "k3s",
    "rootlesskit",
];

/// Programs that start other programs on request or at a time.
pub(crate) const SERVICE_MANAGERS: &[&str] = &[
    "systemd",
    "init",
    "supervisord",
    "s6-svscan",
    "s6-supervise",
    "runsvdir",
    "runsv",
    "openrc-init",
    "pm2",
    "cron",
    "crond",
    "fcron",
    "anacron",
    "atd",
];

/// Terminal multiplexers.
pub(crate) const MULTIPLEXERS: &[&str] = &["tmux", "screen", "zellij", "dtach", "abduco"];

/// Ordinary services, which start nothing for their clients.
pub(crate) const SERVICES: &[&str] = &[
    // Names, users, logs, the bus, the desktop.
    "systemd-resolved",
    "systemd-journald",
    "systemd-logind",
    "systemd-networkd",
    "systemd-userdbd",
    "systemd-userwork",
    "nscd",
    "nslcd",
    "sssd",
    "sssd_nss",
    "dnsmasq",
    "unbound",
    "named",
    "coredns",
    "avahi-daemon",
    "rsyslogd",
    "syslog-ng",
    "dbus-daemon",
    "dbus-broker",
    "dbus-broker-launch",
    "polkitd",
    "gnome-keyring-daemon",
    "gpg-agent",
    "ssh-agent",
    "pulseaudio",
    "pipewire",
    "wireplumber",
    "Xorg",
    "Xwayland",
    // Databases, caches, proxies.
    "postgres",
    "mysqld",
    "mariadbd",
    "redis-server",
    "valkey-server",
    "memcached",
    "mongod",
    "clickhouse-server",
    "nginx",
    "haproxy",
    "envoy",
    "caddy",
    "squid",
    // Model servers and proxies.
    "ollama",
    "llama-server",
    "litellm",
    "vllm",
    "lms",
    // Our own.
    "machineid-sidecar",
    "machineid-authority",
];

/// Where a socket lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeetingPath {
    /// At this path.
    At(&'static str),
    /// In a directory with this name and the user's number behind it.
    OfUser(&'static str),
}

/// The sockets of the system's container engines.
pub const CONTAINER_SOCKETS: &[&str] = &[
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
];

/// The sockets at which root can ask the system's service manager. For other users polkit decides.
pub const MANAGER_SOCKETS: &[&str] = &["/run/systemd/private", "/run/dbus/system_bus_socket"];

/// The directories in which services of one user listen: the user manager, its bus, rootless engines, multiplexers.
pub const USER_SOCKETS: &[MeetingPath] = &[
    MeetingPath::OfUser("/run/user/"),
    MeetingPath::OfUser("/tmp/tmux-"),
    MeetingPath::OfUser("/run/tmux/"),
    MeetingPath::At("/run/screen"),
];
