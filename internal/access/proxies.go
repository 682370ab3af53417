// Proxies stand between clients and the API, and tell it in headers what they have changed.

package access

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var prefix = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

// ValidPrefix reports whether the path can stand before the paths of all pages: / and segments of letters, digits and . _ ~ -.
func ValidPrefix(path string) bool {
	segments := strings.Split(path, "/")
	return prefix.MatchString(path) && len(path) <= 200 && !slices.Contains(segments, ".") && !slices.Contains(segments, "..")
}

// ParseNetwork reads an IP address, or a network such as 10.0.0.0/8.
func ParseNetwork(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		network, err := netip.ParsePrefix(text)
		return network.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
}
