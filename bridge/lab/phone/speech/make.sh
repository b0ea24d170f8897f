#!/bin/sh
# Makes the eight speakers' clips with Debian's espeak-ng and sox:
#   apt-get install espeak-ng sox && ./make.sh
# 16 kHz mono s16, at most 4.5 s, silence cut off, all at one level.
set -eu
cd "$(dirname "$0")"
say() { # file voice pitch words-per-minute text
	espeak-ng -v "$2" -p "$3" -s "$4" --stdout "$5" |
		sox -q -t wav - -r 16000 -c 1 -b 16 "$1.wav" silence 1 0.02 0.5% trim 0 4.5 norm -6
}
say 0 cmn+f2 60 150 '大家好，我是第一位。今天我们讨论一下会议系统的进度，请大家发言。'
say 1 en-us+f3 65 150 'Good morning, this is the second speaker. The agenda has three items for today.'
say 2 cmn+m3 40 160 '你好，我这边信号很好，画面也很清楚。下一步我们准备测试视频。'
say 3 en-gb+m1 35 155 'Hello from the train. I can hear everybody, but I cannot turn my camera on here.'
say 4 cmn+f4 70 155 '我用语音参加会议。上个星期的报告已经发给大家了，请查收。'
say 5 en-us+f1 50 160 'I am calling from an old desk phone. Please speak up if you have any questions.'
say 6 cmn+m1 45 150 '对不起，我刚才在开车，现在可以讲话了。我们继续吧。'
say 7 en-gb-scotland+m2 55 150 'Thank you all for joining. Let us go round the table once more before we close.'
