// Package access has the API keys of clients and the certificate of the server. It reads and compares them. The API decides
// which requests need a key.
package access
