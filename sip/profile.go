package sip

// MediaProfile is what the bridge must know of an attachment to describe media to its
// peers: media belongs on the address that signalling is bound to.
func (ua *UA) MediaProfile(name string) (MediaProfile, bool) {
	o, ok := ua.AttachmentOptions(name)
	if !ok {
		return MediaProfile{}, false
	}
	return MediaProfile{LocalIP: o.LocalAddr, OfferG711: o.OfferG711, OfferOpus: o.OfferOpus, VideoAVPF: o.VideoAVPF,
		Passive: o.Preconditions == "passive", AnyPort: o.Latch == LatchStrict, NATPrefixes: o.NATPrefixes}, true
}
