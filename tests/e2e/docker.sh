#!/bin/bash
# The image and the compose file with a real docker engine: built, run as they are documented, published to through the published
# port, scraped, stopped. Called by `make docker`; without an engine it says so and passes.
#
#   tests/e2e/docker.sh [SERVICE...]    of docker-compose.yml; without any, all of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! docker info >/dev/null 2>&1; then
    echo "docker: no engine answers here, nothing was tried"
    exit 0
fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi

image=relay:latest
project=relay-e2e-$$
work=$(mktemp -d)
services=("$@")
containers=()

finish() {
    local code=$?
    if [ $code -ne 0 ]; then
        for container in "${containers[@]}"; do docker logs "$container" 2>&1 | tail -20 || true; done
        "${compose[@]}" -p "$project" --profile demo logs 2>&1 | tail -60 || true
    fi
    for container in "${containers[@]}"; do docker rm -f "$container" >/dev/null 2>&1 || true; done
    "${compose[@]}" -p "$project" --profile demo down -v >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $code
}
trap finish EXIT

say() { printf 'docker: %s\n' "$*"; }
fail() { say "FAILED: $*"; exit 1; }

# eventually WHAT COMMAND...: COMMAND succeeds within a minute.
eventually() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >"$work/last" 2>&1; do
        if [ $SECONDS -ge $deadline ]; then cat "$work/last"; fail "waited in vain until $what"; fi
        sleep 0.2
    done
    say "$what"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$1")" = healthy ]; }
published() { docker port "$1" 8080/tcp | head -1; }
says() { curl -sf "$1" | grep -q "$2"; }

# run NAME ARGUMENTS...: a container as locked up as it can be.
run() {
    local name=$project-$1
    shift
    containers+=("$name")
    docker run -d --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1::8080 "$@" >/dev/null
    container=$name
}

say "building the image"
"${compose[@]}" -p "$project" build relay
docker image inspect -f 'docker: the image has {{.Size}} bytes, runs as {{.Config.User}} and is stopped by {{.Config.StopSignal}}' "$image"
[ "$(docker image inspect -f '{{.Config.User}}' "$image")" = 1000:1000 ] || fail "it runs as somebody else"

run plain -e UPSTREAM=rtmp://origin.example.com/live "$image"
eventually "it is healthy with nothing but UPSTREAM" healthy "$container"
eventually "/health answers through the published port" says "http://$(published "$container")/health" '"ok"'
docker exec "$container" wget -q -O- http://localhost:8080/health | grep -q '"ok"' || fail "wget within the container gets no answer"
docker exec "$container" relay health http://localhost:8080/livez >/dev/null || fail "relay health within the container fails"
[ "$(docker exec "$container" busybox id -un)" = appuser ] || fail "its user has no name"
if docker exec "$container" busybox touch /app/x 2>/dev/null; then fail "its root can be written to"; fi
docker stop -t 60 "$container" >/dev/null
[ "$(docker inspect -f '{{.State.ExitCode}}' "$container")" = 0 ] || fail "it did not end as asked"
say "it ends with 0 when it is stopped"

mkdir "$work/config"
printf '{ "upstream": "rtmp://origin.example.com/live", "http_addr": ":9000" } // a file\n' >"$work/config/config.json"
chmod -R a+rX "$work"
run file -v "$work/config/config.json:/app/config.json:ro" "$image"
eventually "it is healthy with a file, whose http_addr the probe finds by itself" healthy "$container"
docker exec "$container" wget -q -O- http://localhost:9000/health >/dev/null || fail "the file was not read"

containers+=("$project-wrong")
code=0
docker run --name "$project-wrong" -e UPSTREAM=rtmp://127.0.0.1/live "$image" >"$work/wrong" 2>&1 || code=$?
[ $code = 78 ] || fail "a wrong configuration ends with $code"
grep -q upstream_allowed_networks "$work/wrong" || fail "and does not say what would be right"
say "a wrong configuration ends with 78 and says what would be right"

RELAY_PORT=$(free_port) RELAY_HTTP_PORT=$(free_port) PROMETHEUS_PORT=$(free_port) GRAFANA_PORT=$(free_port)
export RELAY_PORT RELAY_HTTP_PORT PROMETHEUS_PORT GRAFANA_PORT
# An engine cannot give more descriptors than it has.
most=$(docker run --rm --entrypoint sh "$image" -c 'ulimit -Hn')
if [ "$most" != unlimited ] && [ "$most" -lt 65536 ]; then export RELAY_NOFILE=$most; fi
say "starting the services: ${services[*]:-all}"
"${compose[@]}" -p "$project" --profile demo up -d "${services[@]}"
http=http://127.0.0.1:$RELAY_HTTP_PORT
eventually "the relay reaches the origin of the demo profile" says "$http/ready" '"ready":true'
eventually "the test stream passes" says "$http/metrics" '^rtmp_relay_streams{action="publish"} 1$'

wanted() { [ ${#services[@]} -eq 0 ] || [[ " ${services[*]} " == *" $1 "* ]]; }
asked() {
    curl -sfG "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" --data-urlencode "query=$1" | grep -q '"value":\['
}
if command -v ffmpeg >/dev/null; then
    ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=size=160x90:rate=10:duration=600 -c:v libx264 -preset ultrafast -g 10 \
        -pix_fmt yuv420p -f flv "rtmp://127.0.0.1:$RELAY_PORT/live/mine" &
    encoder=$!
    eventually "ffmpeg publishes through the published port" says "$http/metrics" '^rtmp_relay_streams{action="publish"} 2$'
    timeout 30 ffmpeg -nostdin -v error -i "rtmp://127.0.0.1:$RELAY_PORT/live/mine" -frames:v 5 -f null - || fail "it cannot be played"
    say "and is played through it"
fi
if wanted prometheus; then
    eventually "Prometheus scrapes the relay" asked 'up{job="relay"} == 1'
    eventually "and has loaded the alerts" says "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/rules" RelayCircuitOpen
    eventually "and shows what passes" asked 'rate(rtmp_relay_bytes_total{direction="upstream"}[1m]) > 0'
fi
if wanted grafana; then
    eventually "Grafana shows the dashboard to admin" says "http://admin:admin@127.0.0.1:$GRAFANA_PORT/api/dashboards/uid/relay" 'Is it up?'
fi

began=$SECONDS
"${compose[@]}" -p "$project" stop relay
say "the relay ended $((SECONDS - began)) s after it was asked to, with streams on it"
relay=$("${compose[@]}" -p "$project" ps -a -q relay)
[ "$(docker inspect -f '{{.State.ExitCode}}' "$relay")" = 0 ] || fail "it was killed"
docker logs "$relay" 2>&1 | grep '"drain_finished"' | tail -1
if [ -n "${encoder:-}" ]; then kill "$encoder" 2>/dev/null || true; fi
say "all is well"
