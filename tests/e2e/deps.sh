#!/bin/bash
# Installs what the tests need and what is missing here: rustfmt and clippy through rustup, the programs of the
# end-to-end tests through apt. With "bench" instead what the benchmarks compare with, with "callgrind" what counts
# instructions. Where it may not or cannot install, it says exactly what to install, and fails.
set -euo pipefail

purpose=${1:-tests}
declare -A called=([tests]="end-to-end tests" [bench]="benchmarks" [callgrind]="instruction counts")

# Ordinary users have no sbin in their path; nginx is there.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

declare -A missing=()   # package -> what of it was looked for in vain

need() {   # need PACKAGE WHAT COMMAND...: WHAT is there if COMMAND succeeds
    local package=$1 what=$2
    shift 2
    "$@" >/dev/null 2>&1 || missing[$package]+="${missing[$package]:+, }$what"
}

has_rtmp_module() {
    local place
    for place in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/share/nginx/modules; do
        if [ -e "$place/ngx_rtmp_module.so" ]; then return 0; fi
    done
    nginx -V 2>&1 | grep -q 'nginx-rtmp-module'
}

has_stream_module() {
    local place
    for place in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/share/nginx/modules; do
        if [ -e "$place/ngx_stream_module.so" ]; then return 0; fi
    done
    nginx -V 2>&1 | grep -Eq -- '--with-stream( |$)'
}

glib_speaks_tls='import gi; gi.require_version("Gio", "2.0"); from gi.repository import Gio
raise SystemExit(not Gio.TlsBackend.get_default().supports_tls())'

look() {
    missing=()
    case $purpose in
        bench)
            need haproxy HAProxy command -v haproxy
            need nginx nginx command -v nginx
            need libnginx-mod-stream "nginx's stream module" has_stream_module
            need libnginx-mod-rtmp "nginx's RTMP module" has_rtmp_module
            return ;;
        callgrind)
            need valgrind valgrind command -v valgrind
            return ;;
    esac
    need ffmpeg ffmpeg command -v ffmpeg
    need nginx nginx command -v nginx
    need haproxy haproxy command -v haproxy
    need libnginx-mod-rtmp "nginx's RTMP module" has_rtmp_module
    need rtmpdump rtmpdump command -v rtmpdump
    need libnginx-mod-stream "nginx's stream module" has_stream_module
    need openssl openssl command -v openssl
    need prometheus prometheus command -v prometheus
    need prometheus promtool command -v promtool
    need gstreamer1.0-tools gst-launch-1.0 command -v gst-launch-1.0
    need gstreamer1.0-tools gst-inspect-1.0 command -v gst-inspect-1.0
    local element
    for element in flvdemux flvmux aacparse rtspsrc rtph264pay rtpmp4gpay alawenc; do
        need gstreamer1.0-plugins-good "$element" gst-inspect-1.0 --exists "$element"
    done
    need gstreamer1.0-plugins-ugly x264enc gst-inspect-1.0 --exists x264enc
    need gstreamer1.0-rtsp rtspclientsink gst-inspect-1.0 --exists rtspclientsink
    # For the system's own Python, whichever else is in the path.
    need python3-gi "Python's GObject" /usr/bin/python3 -c 'import gi'
    need gir1.2-gst-rtsp-server-1.0 gst-rtsp-server /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")'
    # Without it GLib's programs, GStreamer among them, speak no TLS.
    need glib-networking "TLS for GStreamer" /usr/bin/python3 -c "$glib_speaks_tls"
    for element in h264parse rtmp2sink rtmp2src rtmpsink; do
        need gstreamer1.0-plugins-bad "$element" gst-inspect-1.0 --exists "$element"
    done
}

rust_tools() {
    local tool
    for tool in fmt clippy; do
        if cargo "$tool" --version >/dev/null 2>&1; then continue; fi
        local component=${tool/#fmt/rustfmt}
        if ! command -v rustup >/dev/null || ! rustup component add "$component"; then
            echo "Missing: cargo $tool. Install the Rust component $component (rustup component add $component)." >&2
            exit 1
        fi
    done
}

complain() {   # complain REASON
    {
        echo "The ${called[$purpose]} need programs that are not here:"
        local package
        for package in "${!missing[@]}"; do echo "  ${missing[$package]}  (Debian and Ubuntu package: $package)"; done
        echo "$1 Please install them:"
        echo "  sudo apt-get install --no-install-recommends ${!missing[*]}"
    } >&2
    exit 1
}

# The tests start servers of their own: what the packages would start as services is not wanted.
keep_services_down() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then return 0; fi
    trap '"${root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod +x "$policy"
}

install() {
    command -v apt-get >/dev/null || complain "There is no apt-get to install them with."
    root=()
    if [ "$(id -u)" -ne 0 ]; then
        # Without a password to type: this runs in builds too.
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then complain "Installing takes root."; fi
        root=(sudo -n)
    fi
    local packages=("${!missing[@]}")
    echo "Installing what the ${called[$purpose]} need: ${packages[*]}"
    keep_services_down
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
    "${apt[@]}" update || echo "apt-get update failed; trying with the lists that are here" >&2
    "${apt[@]}" install -y --no-install-recommends "${packages[@]}" || complain "apt-get could not install them."
    local service
    for service in nginx haproxy prometheus; do
        if [[ " ${packages[*]} " == *" $service "* ]] && command -v systemctl >/dev/null; then
            # Nor is it wanted after the next boot.
            "${root[@]}" systemctl disable "$service" >/dev/null 2>&1 || true
        fi
    done
}

# Licences, sources and bans of all dependencies; built from source, some minutes on two cores, once a machine.
cargo_deny() {
    if cargo deny --version >/dev/null 2>&1; then return 0; fi
    echo "Installing cargo-deny, which judges the dependencies"
    if ! cargo install --locked --quiet cargo-deny@0.20.2; then
        echo "Missing: cargo deny. Install it: cargo install --locked cargo-deny" >&2
        exit 1
    fi
}

if [ "$purpose" = tests ]; then
    rust_tools
    cargo_deny
fi
look
if [ ${#missing[@]} -gt 0 ]; then
    install
    look
    if [ ${#missing[@]} -gt 0 ]; then complain "They are still missing after apt-get's work."; fi
fi
