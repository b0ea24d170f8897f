package diameter

// Applications and vendors.
const (
	Cx   = 16777216 // TS 29.229 §6
	TGPP = 10415    // 3GPP
)

// Commands of the base protocol and of Cx (TS 29.229 §6.1).
const (
	CapabilitiesExchange = 257
	DeviceWatchdog       = 280
	DisconnectPeer       = 282
	UserAuthorization    = 300
	ServerAssignment     = 301
	LocationInfo         = 302
	MultimediaAuth       = 303
	RegistrationTerm     = 304
)

// AVPs of the base protocol.
const (
	UserName            = 1
	DigestRealm         = 104 // RFC 4740, as are the next
	DigestQoP           = 110
	DigestHA1           = 121
	HostIPAddress       = 257
	AuthApplicationID   = 258
	VendorApplicationID = 260
	SessionID           = 263
	OriginHost          = 264
	SupportedVendorID   = 265
	VendorID            = 266
	ResultCode          = 268
	ProductName         = 269
	AuthSessionState    = 277
	DestinationRealm    = 283
	DestinationHost     = 293
	OriginRealm         = 296
	ExperimentalResult  = 297
	ExperimentalCode    = 298
)

// AVPs of Cx (TS 29.229 §6.3), vendor TGPP.
const (
	PublicIdentity       = 601
	ServerName           = 602
	ServerCapabilities   = 603
	MandatoryCapability  = 604
	UserData             = 606
	NumberAuthItems      = 607
	AuthenticationScheme = 608
	Authenticate         = 609
	Authorization        = 610
	AuthDataItem         = 612
	ItemNumber           = 613
	AssignmentType       = 614
	DeregistrationReason = 615
	ReasonCode           = 616
	ReasonInfo           = 617
	ChargingInformation  = 618
	PrimaryCCFName       = 621
	AuthorizationType    = 623
	ConfidentialityKey   = 625
	IntegrityKey         = 626
	DigestAuthenticate   = 635
)

// Results: of the base protocol, and Cx's experimental ones (TS 29.229 §6.2).
const (
	Success               = 2001
	CommandUnsupported    = 3001
	UnableToComply        = 5012
	MissingAVP            = 5005
	FirstRegistration     = 2001
	SubsequentRegister    = 2002
	UnregisteredService   = 2003
	UserUnknown           = 5001
	IdentitiesDontMatch   = 5002
	IdentityNotRegistered = 5003
	SchemeNotSupported    = 5006
)
