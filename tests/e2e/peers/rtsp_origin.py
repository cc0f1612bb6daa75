"""An RTSP origin: gst-rtsp-server, which plays a clip and records what it is sent.

usage: rtsp_origin.py DIR CLIP [--auth basic|digest] [--play NAME]... [--record NAME]... [--video NAME]...

Streams are at rtsp://127.0.0.1:PORT/live/NAME:
  --play     the FLV file CLIP (H.264 and AAC) from its beginning, in real time; with --auth for user "op", password "pa:ss"
  --record   records H.264 and AAC into DIR/NAME.h264 and DIR/NAME.aac
  --video    records H.264 into DIR/NAME.h264

Says "listening PORT" when it is ready, and each request that it hears.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CLIP = (
    "( filesrc location=%s ! flvdemux name=d d.video ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
    " d.audio ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )"
)
VIDEO = (
    "rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au"
    " ! filesink sync=false async=false location=%s.h264"
)
AUDIO = "rtpmp4gdepay name=depay1 ! filesink sync=false async=false location=%s.aac"


def factory(launch):
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(launch)
    return made


def recorder(launch):
    made = factory("( " + launch + " )")
    made.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    return made


def protection(server, method):
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "op")
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest("op", "pa:ss", token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("op", "pa:ss"), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for word in ("access", "construct"):
        permissions.add_permission_for_role("op", "media.factory." + word, True)
    return permissions


def watch(_, client):
    def tell(_, context, name):
        print(name, context.uri and context.uri.get_request_uri(), flush=True)

    for name in ("options", "describe", "announce", "setup", "play", "record", "pause", "teardown", "get-parameter"):
        client.connect(name + "-request", tell, name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("clip")
    parser.add_argument("--auth", choices=["basic", "digest"])
    for word in ("--play", "--record", "--video"):
        parser.add_argument(word, action="append", default=[])
    asked = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    permissions = protection(server, asked.auth) if asked.auth else None
    mounts = server.get_mount_points()
    for name in asked.play:
        made = factory(CLIP % asked.clip)
        if permissions:
            made.set_permissions(permissions)
        mounts.add_factory("/live/" + name, made)
    for name in asked.record:
        file = asked.directory + "/" + name
        mounts.add_factory("/live/" + name, recorder(VIDEO % file + " " + AUDIO % file))
    for name in asked.video:
        mounts.add_factory("/live/" + name, recorder(VIDEO % (asked.directory + "/" + name)))
    server.connect("client-connected", watch)
    server.attach(None)
    print("listening", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main()
