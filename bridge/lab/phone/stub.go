package phone

type Options struct{}
