// Package access is how the API and its clients prove who they are: keys that clients show, and the certificate that the
// server shows. It reads and compares; what is refused for want of a key is the API's to say.
package access
