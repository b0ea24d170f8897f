// Every word on the screen, in Chinese and English. {x} is filled in. A test compares the keys and
// the holes, and asks that every error code of the API is here.
export type Lang = 'zh' | 'en'

const zh = {
  'app.name': 'Sparkle', 'app.tagline': '用普通电话开视频会议', 'app.skip': '跳到主要内容',
  'app.logout': '退出登录', 'app.language': 'English', 'app.theme': '主题', 'app.theme.auto': '主题：跟随系统', 'app.theme.light': '主题：浅色', 'app.theme.dark': '主题：深色',
  'app.lost': '与服务器的连接已断开，正在重新连接……画面上的状态可能已经过时。', 'app.loading': '正在加载……', 'app.close': '关闭', 'app.cancel': '取消', 'app.help': '快捷键', 'app.dismiss': '知道了',
  'line.up': '线路正常', 'line.down': '线路不可用', 'line.partial': '部分线路不可用', 'line.none': '没有配置线路', 'line.down.long': '到运营商的线路都不可用，现在无法呼叫。',
  'login.title': '登录', 'login.account': '账号', 'login.password': '密码', 'login.submit': '登录', 'login.busy': '正在登录……',
  'list.title': '会议管理', 'list.create': '创建会议', 'list.empty': '还没有会议', 'list.empty.hint': '创建一个会议，加上成员的姓名和电话号码，然后一键呼叫。接听就已入会，不用装软件。',
  'list.members': '{n} 位成员', 'list.in': '{n} 人会议中', 'list.ringing': '{n} 人振铃中', 'list.delete': '删除会议', 'list.delete.ask': '删除“{name}”？会议里的人会被挂断，成员名单不再保留。', 'list.more': '显示更多', 'list.created': '创建于 {time}', 'list.open': '进入',
  'create.title': '创建会议', 'create.name': '会议名称', 'create.placeholder': '例如：周一例会', 'create.type': '会议类型', 'create.confirm': '接听后按一才进入会议', 'create.confirm.hint': '语音信箱不会被当作参加者', 'create.video': '视频会议', 'create.video.hint': '能视频的手机看到所有人，其他电话以语音参加', 'create.audio': '语音会议', 'create.audio.hint': '所有人以语音参加', 'create.submit': '完成',
  'type.video': '视频会议', 'type.audio': '语音会议', 'conf.idle': '空闲', 'conf.active': '进行中',
  'state.idle': '空闲', 'state.ringing': '振铃中', 'state.in_conference': '会议中', 'filter.all': '全部',
  'room.back': '返回会议列表', 'room.invite': '邀请成员', 'room.callall': '会议呼叫', 'room.callfailed': '呼叫未接通（{n}）', 'room.hangupall': '全部挂断', 'room.hangupall.ask': '挂断会议里的所有人？正在振铃的 {r} 人和会议中的 {i} 人都会被挂断，名单保留，之后可以再次呼叫。', 'room.duration': '会议时长 {time}',
  'room.gone': '这个会议已经不在了', 'room.gone.hint': '它可能已被删除，或者您无权查看。', 'room.empty': '还没有成员', 'room.empty.hint': '邀请成员，然后按“会议呼叫”，大家的电话会同时响起。', 'room.nomatch': '没有符合条件的成员', 'room.showall': '显示全部成员', 'room.roster': '成员', 'room.find': '按姓名或号码查找', 'room.filter': '按状态筛选', 'room.called': '正在呼叫 {n} 人', 'room.nobody': '没有可以呼叫的成员', 'room.selected': '已选 {n} 人', 'room.selectall': '选择全部', 'room.select': '选择{name}', 'room.clear': '取消选择', 'room.hungup': '已全部挂断',
  'col.member': '成员', 'col.state': '状态', 'col.call': '通话情况', 'col.actions': '操作',
  'do.call': '呼叫', 'do.mute': '静音', 'do.unmute': '取消静音', 'do.hangup': '挂断', 'do.whisper': '私语', 'do.video': '请开视频', 'do.voice': '语音', 'ask.video': '正在请对方开视频…', 'ask.audio': '正在转为语音…', 'ask.refused': '对方没有打开视频', 'media.stalled': '收不到对方画面', 'media.camera_off': '对方未开摄像头', 'media.cs': '普通电话网络', 'do.remove': '删除', 'do.for': '{what}：{name}', 'do.remove.ask': '把“{name}”从名单中删除？如果正在通话，会先挂断。',
  'row.muted': '已静音', 'row.talking': '正在讲话', 'row.whispering': '私语中', 'row.listener': '听众', 'row.host': '主持人', 'row.held': '对方保持通话', 'row.never': '尚未呼叫', 'row.mos': '通话质量：{word}（{mos}）',
  'mos.good': '良好', 'mos.fair': '一般', 'mos.poor': '较差', 'media.video': '视频', 'media.voice': '语音', 'media.connecting': '正在接通', 'leg.dialing': '正在呼出', 'leg.ringing': '对方振铃', 'leg.confirm': '已接听，等待按一确认', 'leg.early_media': '对方播放提示音', 'leg.held': '通话保持中',
  'why.refused': '对方以语音接听', 'why.inactive': '对方暂停了视频', 'why.missing_mline': '对方不支持视频', 'why.codec_mismatch': '视频格式不兼容', 'why.not_offered': '', 'why.removed': '通话中关闭了视频', 'why.voice_only': '已转为语音', 'why.no_capacity': '服务器视频已满', 'why.conference_is_audio': '语音会议', 'why.rejected': '对方网络拒绝视频，已改用语音', 'why.other': '没有视频',
  'preview.title': '会议画面', 'preview.alt': '手机上看到的会议画面', 'preview.none': '还没有画面', 'preview.none.hint': '有人以视频入会后，这里显示手机上看到的画面。', 'preview.audio': '语音会议', 'preview.audio.hint': '这是语音会议，没有画面。', 'preview.stale': '画面暂时无法更新', 'preview.live': '实时',
  'invite.title': '邀请成员', 'invite.number': '电话号码', 'invite.number.hint': '带国家代码，例如 +8613800138000', 'invite.name': '姓名', 'invite.name.hint': '可不填，不填则显示号码', 'invite.add': '+ 添加成员', 'invite.selected': '已选成员', 'invite.none': '添加的成员会出现在这里', 'invite.done': '完成', 'invite.busy': '正在保存……', 'invite.one': '逐个添加', 'invite.paste': '批量粘贴', 'invite.paste.label': '每行一人：姓名,号码', 'invite.paste.add': '添加 {n} 人', 'invite.paste.bad': '{n} 行有问题，不会添加', 'invite.paste.ok': '{n} 行可以添加', 'invite.line': '第 {n} 行', 'invite.drop': '移除{name}', 'invite.added': '已添加 {n} 位成员', 'invite.some': '{ok} 位已添加，{bad} 位未能添加，原因见列表。',
  'fault.number_required': '请填写电话号码', 'fault.number_invalid': '不像电话号码', 'fault.duplicate': '号码重复', 'fault.member_exists': '已在名单中',
  'whisper.title': '私语', 'whisper.to': '{name} 会听到私语，其他人听不到。', 'whisper.from': '由谁来说', 'whisper.console': '从控制台（本机麦克风）', 'whisper.console.no': '控制台还不能用麦克风讲话', 'whisper.mode': '方式', 'whisper.private': '悄悄话', 'whisper.private.hint': '对方的回答也只有说话人能听到', 'whisper.coach': '指导', 'whisper.coach.hint': '对方照常对全会发言', 'whisper.start': '开始私语', 'whisper.nobody': '需要另一位成员在会议中，才能由其私语。', 'whisper.now': '{from} 正在对 {to} 私语', 'whisper.end': '结束私语',
  'help.title': '键盘快捷键', 'help.find': '查找成员', 'help.help': '显示本帮助', 'help.call': '呼叫所选成员', 'help.mute': '静音或取消静音所选成员', 'help.hangup': '挂断所选成员', 'help.callall': '会议呼叫（呼叫全部）', 'help.note': '没有勾选成员时，作用于焦点所在的一行。在输入框里打字时不起作用。',
  'say.in_conference': '{names} 已入会', 'say.ringing': '正在呼叫 {names}', 'say.idle': '{names} 已离开或未接通', 'say.many': '{name} 等 {n} 人', 'sip.code': 'SIP {status}',
  'error.generic': '操作没有成功，请稍后再试。', 'error.server': '服务器出了问题，请稍后再试。', 'error.offline': '无法连接服务器，请检查网络。', 'error.partial': '{n} 人未能呼叫：{why}',
  'e.login_failed': '账号或密码不正确。', 'e.login_throttled': '尝试次数过多，请稍后再试。', 'e.session_expired': '登录已过期，请重新登录。', 'e.key_unknown': '密钥无效。', 'e.unauthenticated': '请先登录。', 'e.scope_missing': '您的账号没有这个权限。', 'e.cross_origin': '请求来自其他网站，已被拒绝。', 'e.host_unknown': '请用服务器的正确地址访问。',
  'e.name_required': '请填写名称。', 'e.upgrade_too_soon': '刚刚请过，一分钟后再试。', 'e.not_connected': '对方不在会议中。', 'e.conference_is_audio': '这是语音会议。', 'e.cs_access': '对方在普通电话网络上，没有视频。', 'e.leg_held': '对方把通话保持了，暂时不能开视频。', 'e.no_video': '服务器没有视频功能。', 'e.name_invalid': '名称不能用：太长，或含有不能显示的字符。', 'e.type_invalid': '没有这种会议类型。', 'e.number_invalid': '不是有效的电话号码，请带上国家代码，例如 +8613800138000。', 'e.role_invalid': '没有这种角色。', 'e.targets_required': '没有选择要呼叫的成员。', 'e.targets_invalid': '要呼叫的成员已不在名单中。', 'e.media_invalid': '没有这种呼叫方式。', 'e.mode_invalid': '没有这种私语方式。', 'e.to_required': '请选择私语的对象。', 'e.to_invalid': '不能对这位成员私语。', 'e.ring_timeout_invalid': '振铃时间不合适。', 'e.listener_is_muted': '听众不能取消静音，请先更改角色。', 'e.member_not_in_conference': '这位成员现在不在会议中。', 'e.member_exists': '这个号码已在名单中。', 'e.member_in_call': '这位成员已经在通话中。', 'e.attachment_down': '到运营商的线路不可用，现在无法呼叫。', 'e.dial_not_allowed': '不允许呼叫这个号码。', 'e.console_has_no_audio': '控制台还不能用麦克风讲话，请选择一位成员。', 'e.conference_full': '会议成员已满。', 'e.too_many_conferences': '会议太多了，请先删除一些。', 'e.no_picture': '现在没有画面。', 'e.shutting_down': '服务器正在停止，请稍后再试。', 'e.storage_full': '服务器磁盘已满，请联系管理员。', 'e.storage_unavailable': '服务器暂时无法保存，请稍后再试。', 'e.media_down': '媒体服务正在恢复，请稍后再试。', 'e.not_conference_owner': '只有会议的创建者可以这样做。', 'e.conference_not_found': '找不到这个会议，可能已被删除。', 'e.member_not_found': '找不到这位成员，可能已被删除。', 'e.leg_not_found': '这位成员现在没有通话。', 'e.conference_busy': '会议正忙，请稍后再试。', 'e.ports_full': '服务器的通话路数已满。', 'e.idempotency_in_progress': '同样的请求正在处理，请稍候。', 'e.request_invalid': '填写的内容有误，请检查。', 'e.not_ready': '服务器还没有准备好。',
}

export type Key = keyof typeof zh

const en: Record<Key, string> = {
  'app.name': 'Sparkle', 'app.tagline': 'Video conferences on ordinary phones', 'app.skip': 'Skip to the main part',
  'app.logout': 'Log out', 'app.language': '中文', 'app.theme': 'Theme', 'app.theme.auto': 'Theme: as the system', 'app.theme.light': 'Theme: light', 'app.theme.dark': 'Theme: dark',
  'app.lost': 'The connection to the server is lost; trying again… What you see may be out of date.', 'app.loading': 'Loading…', 'app.close': 'Close', 'app.cancel': 'Cancel', 'app.help': 'Shortcuts', 'app.dismiss': 'Got it',
  'line.up': 'Lines up', 'line.down': 'Lines down', 'line.partial': 'Some lines down', 'line.none': 'No lines set up', 'line.down.long': 'No line to the carrier is up; calls cannot be placed now.',
  'login.title': 'Log in', 'login.account': 'Account', 'login.password': 'Password', 'login.submit': 'Log in', 'login.busy': 'Logging in…',
  'list.title': 'Conferences', 'list.create': 'New conference', 'list.empty': 'No conferences yet', 'list.empty.hint': 'Make one, add names and phone numbers, and call everyone at once. Whoever answers is in; there is nothing to install.',
  'list.members': '{n} members', 'list.in': '{n} in conference', 'list.ringing': '{n} ringing', 'list.delete': 'Delete conference', 'list.delete.ask': 'Delete “{name}”? Everyone in it is hung up and its roster is forgotten.', 'list.more': 'Show more', 'list.created': 'Made {time}', 'list.open': 'Open',
  'create.title': 'New conference', 'create.name': 'Name', 'create.placeholder': 'Such as: Monday meeting', 'create.type': 'Type', 'create.confirm': 'Press 1 to join', 'create.confirm.hint': 'Whoever answers must press 1, so that voicemail stays out', 'create.video': 'Video conference', 'create.video.hint': 'Phones with video see everyone; all others join by voice', 'create.audio': 'Voice conference', 'create.audio.hint': 'Everyone joins by voice', 'create.submit': 'Create',
  'type.video': 'Video conference', 'type.audio': 'Voice conference', 'conf.idle': 'Idle', 'conf.active': 'Under way',
  'state.idle': 'Idle', 'state.ringing': 'Ringing', 'state.in_conference': 'In conference', 'filter.all': 'All',
  'room.back': 'Back to the conferences', 'room.invite': 'Invite members', 'room.callall': 'Call all', 'room.callfailed': 'Call the missed ({n})', 'room.hangupall': 'Hang up all', 'room.hangupall.ask': 'Hang up everyone? This ends {r} ringing and {i} connected calls. The roster stays and can be called again.', 'room.duration': 'Running for {time}',
  'room.gone': 'This conference is gone', 'room.gone.hint': 'It was deleted, or you may not see it.', 'room.empty': 'No members yet', 'room.empty.hint': 'Invite members, then press “Call all”: everyone’s phone rings at once.', 'room.nomatch': 'No member matches', 'room.showall': 'Show all members', 'room.roster': 'Members', 'room.find': 'Find a name or number', 'room.filter': 'Filter by state', 'room.called': 'Calling {n}', 'room.nobody': 'There is nobody to call', 'room.selected': '{n} selected', 'room.selectall': 'Select all', 'room.select': 'Select {name}', 'room.clear': 'Clear selection', 'room.hungup': 'Everyone is hung up',
  'col.member': 'Member', 'col.state': 'State', 'col.call': 'Call', 'col.actions': 'Actions',
  'do.call': 'Call', 'do.mute': 'Mute', 'do.unmute': 'Unmute', 'do.hangup': 'Hang up', 'do.whisper': 'Whisper', 'do.video': 'Ask for video', 'do.voice': 'Voice only', 'ask.video': 'Asking for video…', 'ask.audio': 'Going to voice…', 'ask.refused': 'Stayed with voice', 'media.stalled': 'No picture arrives', 'media.camera_off': 'Camera off', 'media.cs': 'Ordinary phone network', 'do.remove': 'Remove', 'do.for': '{what}: {name}', 'do.remove.ask': 'Take “{name}” off the roster? A call is hung up first.',
  'row.muted': 'Muted', 'row.talking': 'Talking', 'row.whispering': 'Whisper', 'row.listener': 'Listener', 'row.host': 'Host', 'row.held': 'Put us on hold', 'row.never': 'Not called yet', 'row.mos': 'Call quality: {word} ({mos})',
  'mos.good': 'good', 'mos.fair': 'fair', 'mos.poor': 'poor', 'media.video': 'Video', 'media.voice': 'Voice', 'media.connecting': 'Connecting', 'leg.dialing': 'Dialling', 'leg.ringing': 'Phone is ringing', 'leg.confirm': 'Answered, to press 1', 'leg.early_media': 'Network announcement', 'leg.held': 'On hold',
  'why.refused': 'Answered by voice', 'why.inactive': 'Video paused there', 'why.missing_mline': 'Phone has no video', 'why.codec_mismatch': 'Video formats do not match', 'why.not_offered': '', 'why.removed': 'Video turned off in the call', 'why.voice_only': 'Turned to voice', 'why.no_capacity': 'No room for more video', 'why.conference_is_audio': 'Audio conference', 'why.rejected': 'Network refused video; called by voice', 'why.other': 'No video',
  'preview.title': 'Picture', 'preview.alt': 'The conference as the phones see it', 'preview.none': 'No picture yet', 'preview.none.hint': 'Once somebody joins by video, this shows what the phones see.', 'preview.audio': 'Voice conference', 'preview.audio.hint': 'This is a voice conference; there is no picture.', 'preview.stale': 'The picture cannot be updated now', 'preview.live': 'Live',
  'invite.title': 'Invite members', 'invite.number': 'Phone number', 'invite.number.hint': 'With country code, like +8613800138000', 'invite.name': 'Name', 'invite.name.hint': 'May stay empty; then the number is shown', 'invite.add': '+ Add member', 'invite.selected': 'Selected', 'invite.none': 'Members you add appear here', 'invite.done': 'Done', 'invite.busy': 'Saving…', 'invite.one': 'One by one', 'invite.paste': 'Paste a list', 'invite.paste.label': 'One per line: name,number', 'invite.paste.add': 'Add {n}', 'invite.paste.bad': '{n} lines have a fault and are left out', 'invite.paste.ok': '{n} lines can be added', 'invite.line': 'Line {n}', 'invite.drop': 'Take out {name}', 'invite.added': '{n} members added', 'invite.some': '{ok} added, {bad} not; the list says why.',
  'fault.number_required': 'Number is missing', 'fault.number_invalid': 'Not a phone number', 'fault.duplicate': 'Number is there twice', 'fault.member_exists': 'Already on the roster',
  'whisper.title': 'Whisper', 'whisper.to': '{name} will hear the whisper; nobody else does.', 'whisper.from': 'Who speaks', 'whisper.console': 'This console (your microphone)', 'whisper.console.no': 'The console cannot speak by microphone yet', 'whisper.mode': 'How', 'whisper.private': 'Private', 'whisper.private.hint': 'Answers are heard by the whisperer only', 'whisper.coach': 'Coach', 'whisper.coach.hint': 'The other still speaks to everyone', 'whisper.start': 'Start whisper', 'whisper.nobody': 'Another member must be in the conference to whisper.', 'whisper.now': '{from} whispers to {to}', 'whisper.end': 'End whisper',
  'help.title': 'Keyboard shortcuts', 'help.find': 'Find a member', 'help.help': 'Show this help', 'help.call': 'Call the selected', 'help.mute': 'Mute or unmute the selected', 'help.hangup': 'Hang up the selected', 'help.callall': 'Call all', 'help.note': 'With nobody ticked, they act on the row that has the focus. They do nothing while you type.',
  'say.in_conference': '{names} joined', 'say.ringing': 'Calling {names}', 'say.idle': '{names} left or did not answer', 'say.many': '{name} and others, {n} in all,', 'sip.code': 'SIP {status}',
  'error.generic': 'That did not work. Please try again.', 'error.server': 'The server has a problem. Please try again later.', 'error.offline': 'The server cannot be reached. Check your network.', 'error.partial': '{n} could not be called: {why}',
  'e.login_failed': 'Account or password is wrong.', 'e.login_throttled': 'Too many attempts. Please wait a moment.', 'e.session_expired': 'Your login has expired. Please log in again.', 'e.key_unknown': 'The key is not valid.', 'e.unauthenticated': 'Please log in first.', 'e.scope_missing': 'Your account may not do this.', 'e.cross_origin': 'The request came from another site and was refused.', 'e.host_unknown': 'Please use the server’s proper address.',
  'e.name_required': 'Please give a name.', 'e.upgrade_too_soon': 'Asked a moment ago. Try again in a minute.', 'e.not_connected': 'The member is not in the conference.', 'e.conference_is_audio': 'This is an audio conference.', 'e.cs_access': 'The phone is on an ordinary phone network, without video.', 'e.leg_held': 'The phone has put the call on hold.', 'e.no_video': 'This server has no video.', 'e.name_invalid': 'This name cannot be used: too long, or with characters that cannot be shown.', 'e.type_invalid': 'There is no such type.', 'e.number_invalid': 'Not a valid phone number. Give the country code, like +8613800138000.', 'e.role_invalid': 'There is no such role.', 'e.targets_required': 'Nobody is chosen to be called.', 'e.targets_invalid': 'Who was to be called is no longer on the roster.', 'e.media_invalid': 'Calls cannot be placed that way.', 'e.mode_invalid': 'There is no such kind of whisper.', 'e.to_required': 'Please choose who hears the whisper.', 'e.to_invalid': 'This member cannot hear a whisper.', 'e.ring_timeout_invalid': 'The ringing time is out of range.', 'e.listener_is_muted': 'Listeners stay muted. Change the role first.', 'e.member_not_in_conference': 'This member is not in the conference now.', 'e.member_exists': 'This number is on the roster already.', 'e.member_in_call': 'This member is in a call already.', 'e.attachment_down': 'The line to the carrier is down; calls cannot be placed now.', 'e.dial_not_allowed': 'This number may not be called.', 'e.console_has_no_audio': 'The console cannot speak yet. Choose a member.', 'e.conference_full': 'The conference is full.', 'e.too_many_conferences': 'There are too many conferences. Delete some first.', 'e.no_picture': 'There is no picture now.', 'e.shutting_down': 'The server is stopping. Please try again later.', 'e.storage_full': 'The server’s disk is full. Tell the administrator.', 'e.storage_unavailable': 'The server cannot save just now. Please try again.', 'e.media_down': 'The media service is recovering. Please try again.', 'e.not_conference_owner': 'Only who made the conference may do this.', 'e.conference_not_found': 'This conference cannot be found; it may have been deleted.', 'e.member_not_found': 'This member cannot be found; perhaps removed.', 'e.leg_not_found': 'This member has no call now.', 'e.conference_busy': 'The conference is busy. Please try again.', 'e.ports_full': 'The server has no room for more calls.', 'e.idempotency_in_progress': 'The same request is still running. Please wait.', 'e.request_invalid': 'Something in the form is not right. Please check.', 'e.not_ready': 'The server is not ready yet.',
}

export const words: Record<Lang, Record<Key, string>> = { zh, en }

/** Fills the holes of a text. */
export function fill(text: string, holes: Record<string, string | number> = {}): string {
  return text.replace(/\{(\w+)\}/g, (hole, k: string) => String(holes[k] ?? hole))
}

/** The plain words for an error; never the server's own. */
export function explain(lang: Lang, code: string, status: number): string {
  if (code === 'offline') return words[lang]['error.offline']
  const known = (words[lang] as Record<string, string>)[`e.${code}`]
  if (known) return known
  if (code.endsWith('_invalid') || code.endsWith('_unknown')) return words[lang]['e.request_invalid']
  return words[lang][status >= 500 ? 'error.server' : 'error.generic']
}

/** m:ss, or h:mm:ss from an hour on. */
export function clock(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000))
  const two = (n: number) => String(n).padStart(2, '0')
  const h = Math.floor(s / 3600)
  return h ? `${h}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`
}

/** E-model estimate in a word, or null while it is unknown. */
export function mosWord(mos: number): 'good' | 'fair' | 'poor' | null {
  if (!mos) return null
  return mos >= 3.6 ? 'good' : mos >= 3 ? 'fair' : 'poor'
}

/** Why there is only voice, in words; empty where that was asked for. */
export function whyNoVideo(lang: Lang, why: string): string {
  if (why.startsWith('rejected_')) return words[lang]['why.rejected']
  return (words[lang] as Record<string, string>)[`why.${why}`] ?? words[lang]['why.other']
}
