"""An RTSP origin: gst-rtsp-server, which plays a live picture and records what it is sent.

usage: rtsp_origin.py DIR [basic|digest] [--clip FILE] [--play NAME]... [--record NAME]... [--record-video NAME]...

  rtsp://127.0.0.1:PORT/live/cam    a live test picture with sound; with `basic` or `digest` for user "op", password "pa:ss"
  rtsp://127.0.0.1:PORT/in/av-N     records H.264 and AAC into DIR/av-N.h264 and .aac, N from 0 to 3
  rtsp://127.0.0.1:PORT/in/v-N      records H.264 into DIR/v-N.h264

and with the options, for each NAME:

  rtsp://127.0.0.1:PORT/live/NAME   plays the FLV file FILE (H.264 and AAC) from its beginning, in real time; or records as above

Says "listening PORT" when it is ready, each request that it hears, and "closed NAME" when a recording is over and its files are closed.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PLAY = (
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=800 ! rtph264pay name=pay0 pt=96 config-interval=1"
    " audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8 )"
)
CLIP = (
    "( filesrc location=%s ! flvdemux name=d d.video ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
    " d.audio ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )"
)
VIDEO = "rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au ! filesink sync=false async=false location=%s.h264"
AUDIO = " rtpmp4gdepay name=depay1 ! filesink sync=false async=false location=%s.aac"


def recorder(launch, name):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch("( " + launch + " )")
    factory.connect("media-configure", lambda _, media: media.connect("unprepared", lambda _: print("closed", name, flush=True)))
    return factory


def protect(server, factory, method):
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
    factory.set_permissions(permissions)


def watch(_, client):
    for name in ("options", "describe", "announce", "setup", "play", "record", "pause", "teardown", "get-parameter"):
        client.connect(name + "-request", lambda _, context, name=name: print(name, context.uri and context.uri.get_request_uri(), flush=True))


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("method", nargs="?", choices=["basic", "digest"])
    parser.add_argument("--clip")
    for word in ("--play", "--record", "--record-video"):
        parser.add_argument(word, action="append", default=[])
    return parser.parse_args()


def main():
    Gst.init(None)
    asked = arguments()
    directory, method = asked.directory, asked.method
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    mounts = server.get_mount_points()
    play = GstRtspServer.RTSPMediaFactory()
    play.set_launch(PLAY)
    play.set_shared(True)
    mounts.add_factory("/live/cam", play)
    for number in range(4):
        name = "%s/av-%d" % (directory, number)
        mounts.add_factory("/in/av-%d" % number, recorder(VIDEO % name + AUDIO % name, "av-%d" % number))
        mounts.add_factory("/in/v-%d" % number, recorder(VIDEO % ("%s/v-%d" % (directory, number)), "v-%d" % number))
    for name in asked.play:
        clip = GstRtspServer.RTSPMediaFactory()
        clip.set_launch(CLIP % asked.clip)
        mounts.add_factory("/live/" + name, clip)
    for name in asked.record + asked.record_video:
        file = "%s/%s" % (directory, name)
        mounts.add_factory("/live/" + name, recorder(VIDEO % file + (AUDIO % file if name in asked.record else ""), name))
    if method:
        protect(server, play, method)
    server.connect("client-connected", watch)
    server.attach(None)
    print("listening", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main()
